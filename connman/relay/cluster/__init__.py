"""Several relays as one: who has spares of a name, who claims one, and the frames between two machines."""
