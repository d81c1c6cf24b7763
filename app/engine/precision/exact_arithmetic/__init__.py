"""A program run again in numbers of many digits, step by step."""
