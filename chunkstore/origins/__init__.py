"""Where blobs can always be had: directories, HTTP servers, OCI registries.

::

    directory, http     a folder of blobs and small documents, on a disk or under a url
    reference           Reference: HOST[:PORT]/REPO[:TAG][@DIGEST]
    credentials         who we are to a registry: environment, Docker's and Podman's files
    challenge, keyring  what a 401 asks for; the keys that answer it, per scope, renewed in time
    registry            Registry: one repository, asked with whatever proof it wants
    registryorigin      its blobs by range, wherever it redirects to
    manifest, images    what an image is made of; an image found by tag, digest and platform
    download, contents  whole blobs as verified streams, for tasks and for worker threads
    push                blobs and manifests into a repository

Each is imported by its own name: most programs need one of them, and imports cost start-up time.
"""
