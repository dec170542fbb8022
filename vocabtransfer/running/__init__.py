"""Loading models and running them: dtype, device, memory, tables swapped in place."""
