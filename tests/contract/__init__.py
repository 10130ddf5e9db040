"""What every optimizer, layer and callback of kerasopt keeps, one row of a table each."""
