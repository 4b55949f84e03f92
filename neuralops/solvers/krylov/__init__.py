"""Methods that choose the best step in a growing space, and the preconditioners that shorten them."""
