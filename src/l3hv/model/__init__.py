"""The words of the project as dataclasses, from the intent to the plan."""
