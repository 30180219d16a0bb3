"""Functions on tensors: every operator in several versions, equal in value and gradient."""
