"""What the fuzz has from other levels of the tests."""

from __future__ import annotations

from test_rendered_files import image  # noqa: F401 - a fixture
