"""`madang`: the mesh on a laptop, training, calls and traces."""
