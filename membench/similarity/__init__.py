"""How a generated image and a training image are compared.

For other packages: criterion, spaces, near_duplicates, l2, search, squares, cliques."""
