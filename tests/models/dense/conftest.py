"""Strict promotion of dtypes and ranks in every test of this folder."""

from strictness import strict_promotion as strict_promotion
