"""What a step of training is made of: the model in its precision, loss, optimizer, learning rate."""
