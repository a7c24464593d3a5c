"""Measured samples: the store, exports, and imports of tables that others measured."""
