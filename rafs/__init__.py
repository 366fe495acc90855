"""Image metadata: the tree and its formats. Pure: no trio, no sockets."""
