"""What training and serving share: model, preprocessing, decision and bundle. Serving may import nothing else."""
