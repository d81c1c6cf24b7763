"""What a query will take before anything is allocated: shapes, method, passes, bytes, flops; and what is refused for it."""
