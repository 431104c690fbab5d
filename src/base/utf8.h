// Text from outside: is it UTF-8, is it blank, and how does it look in a message.
#pragma once

#include <string>
#include <string_view>

namespace aionbd {

/// Whether `text` is well-formed UTF-8 (RFC 3629: shortest form, no surrogates, at most U+10FFFF).
/// NUL is an ordinary character. Cost: one pass, eight ASCII bytes at a time.
bool is_utf8(std::string_view text);

/// Whether `text` is empty or has nothing but white space (Unicode property White_Space).
bool is_blank(std::string_view text);

/// `text` between double quotes, for a message: always valid UTF-8 without control characters,
/// whatever the bytes (those are written \xNN), and cut with "..." after about 64 bytes.
std::string quoted_text(std::string_view text);

}  // namespace aionbd
