"""PyTorch's modules in a program: what each computes, and where its weights come from."""
