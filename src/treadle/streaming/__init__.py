"""From bytes to model events: pure, synchronous, indifferent to where the bytes are cut."""
