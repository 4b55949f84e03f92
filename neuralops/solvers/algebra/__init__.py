"""What every method is made of: vectors as pytrees, matrices as maps, null spaces, functions traced once."""
