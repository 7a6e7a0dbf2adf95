"""The demonstration: generated EN-FR sentences on fisheries science, and a model trained on them."""
