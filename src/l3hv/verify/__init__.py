"""What a fabric should look like, what it does look like, and the difference."""
