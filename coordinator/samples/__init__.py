"""What came back: the sample store, exports, imports of other people's tables."""
