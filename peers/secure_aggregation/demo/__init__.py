"""The demo: a server and peers that train together, as processes on this machine."""
