"""What an image is built from: directories, tarballs, OCI images."""
