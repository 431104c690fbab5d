// Arrays of plain decimal numbers, which is what the bodies of a vector database mostly are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace aionbd {

/// Reads a JSON array of numbers ("[1,2.5,-3e-4]", blanks allowed) and appends them to `out`, each
/// the correctly rounded double rounded to f32: what a JSON parser gives.
///
/// Returns the place of the array's ']' in `marks`, or null, with `out` as it was, for anything it
/// is not made for: an empty or malformed array, another value in it, more than `values_max` items,
/// a number beyond double. The caller then reads it the slow way, errors included.
///
///   body   48 bytes behind it must be readable
///   marks  where in `body` the brackets, commas and beginnings of scalars are, in order, as a
///          structural parser has found them; the first is the array's '['. Ends with a mark at
///          or beyond the end of `body`, and one more readable number behind that
///   values_max  bounds the room taken in `out` beforehand
///
/// Because the marks say where each number begins and ends, the numbers do not wait for each other:
/// 2.3 ns for each of one to three digits, where a reader that looks for the commas itself
/// takes 3.6 ns; 7 ns for up to seven digits with a point among them, where the way of the longer
/// ones takes 15 to 20 ns; 16 ns for nine digits behind the point, 33 ns for seventeen.
const uint32_t* read_plain_floats(std::string_view body, const uint32_t* marks, size_t values_max,
                                  std::vector<float>& out);

}  // namespace aionbd
