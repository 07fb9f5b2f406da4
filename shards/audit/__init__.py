"""What is wrong with the pictures: unreadable files, duplicates, leaks between splits, conflicting labels."""
