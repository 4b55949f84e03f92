"""What search directions are trained on: losses and the residuals that a solver visits."""
