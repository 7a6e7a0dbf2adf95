"""Tests of mtft."""
