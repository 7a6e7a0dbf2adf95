"""Tests of the trainer; they import torch."""
