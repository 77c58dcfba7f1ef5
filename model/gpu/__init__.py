"""What only a GPU needs: captured steps in fixed shapes, a kernel for their attention, and an encoder beside them."""
