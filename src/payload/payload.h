// The binary form of a payload: canonical (equal payloads, equal bytes), readable in place.
// An empty payload is zero bytes. Layout: docs/format.md, "Payload".
#pragma once

#include <string>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "base/bytes.h"

namespace aionbd {

/// The canonical bytes of `payload`. The payload is level 1 of the nesting. Numbers keep their
/// kind: 1 and 1.0 are different bytes (and so are 0.0 and -0.0); a filter finds them equal.
/// Errors: invalid_argument (blank or over-long key, nesting beyond kNestingMax, invalid UTF-8,
/// non-finite number, more than kPayloadBytesMax encoded), naming the key by its dotted path.
Result<std::string> encode_payload(const Payload& payload);

/// Whether `bytes` is a whole, canonical payload that `encode_payload` could have made. For bytes
/// from outside the process. Errors: corruption, naming the offset. Cost: one pass, no allocation.
Status check_payload(Bytes bytes);

/// The payload as values. Takes up to about 60 bytes of memory per byte given (arrays of nulls).
/// REQUIRES: check_payload(bytes).ok().
Payload decode_payload(Bytes bytes);

}  // namespace aionbd
