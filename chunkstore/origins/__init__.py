"""Where blobs can always be had: directories, HTTP servers, OCI registries."""
