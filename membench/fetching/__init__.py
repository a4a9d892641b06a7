"""The network, and nothing but the network: the only package that opens a socket.

For other packages: net, hub, resources, image_download, download_status,
publish."""
