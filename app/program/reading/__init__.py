"""From the text of a program to a checked tree with places."""
