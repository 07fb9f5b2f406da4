"""Training steps: precision, loss, optimizer, learning rate."""
