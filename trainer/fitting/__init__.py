"""What `trainer.decide` fits to a trained classifier's answers: temperature, operating point, sets, Gaussians."""
