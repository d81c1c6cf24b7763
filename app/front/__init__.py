"""The front: HTTP, without PyTorch. `application.py` puts it together, `server.py` runs it."""
