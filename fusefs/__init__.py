"""A bootstrap as a filesystem: the vfs, the pyfuse3 session, its supervisor."""
