import numpy as np
import torch

from leakgauge import Codec, PayloadError


class Float8(Codec):
    """One byte a value: float8 with four bits of exponent, which holds up to 448."""

    limit = 448.0

    def encode(self, tokens):
        return tokens.clamp(-self.limit, self.limit).to(torch.float8_e4m3fn).cpu().view(torch.uint8).numpy().tobytes()

    def decode(self, data, count, width):
        # Whoever sends chooses `data`: believe nothing of it.
        if len(data) != count * width:
            raise PayloadError(f"{len(data)} bytes, expected {count * width}", hint="send it again")
        values = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(torch.float8_e4m3fn).float()
        if not values.isfinite().all():
            raise PayloadError("a value is not finite", hint="send it again")
        return values.reshape(count, width)
