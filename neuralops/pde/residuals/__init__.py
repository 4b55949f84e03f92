"""Residuals of equations for field functions, weak, strong and balanced: what objectives without labels are made of."""
