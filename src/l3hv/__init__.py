"""The networking logic of l3hv: intent in, every host's plan out."""
