"""Probes that ship: functions of a model's weights, for `mergescope experiment --probe`."""
