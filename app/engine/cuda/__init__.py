"""What only a worker on a GPU does; nothing here touches CUDA before it is called."""
