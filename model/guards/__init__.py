"""Against invention and loss: which texts are doubted, who is heard about them, and what is left out and said."""
