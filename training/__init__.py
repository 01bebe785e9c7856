"""How the embedded model was made, reproducible from one command; not part of the wheel."""
