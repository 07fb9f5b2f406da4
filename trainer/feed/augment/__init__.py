"""Random changes of training pictures, drawn from each sample's own key."""
