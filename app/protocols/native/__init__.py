"""Pullback's own protocol: JSON and safetensors."""
