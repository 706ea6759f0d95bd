"""How near a forecast of peak memory is to what was measured."""


def is_near(forecast, measured_bytes, share=0.15):
    """Whether the measured peak lies within 15 % of the forecast's range, which is one number for most networks."""
    return forecast.low_bytes <= (1 + share) * measured_bytes and (1 - share) * measured_bytes <= forecast.high_bytes
