"""The stages of each recipe, from nothing to results. ``recipes.run`` runs them."""
