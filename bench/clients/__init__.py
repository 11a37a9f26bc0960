"""One module for each client measured; each function of theirs is one job, named alike in all of them."""
