/* Scanning of request heads, many bytes at a time where the machine can.
 *
 * Every function reads only from `low`, or else from p, up to `end`. The
 * scalar forms define the result; fh_scan_check compares the others with
 * them.
 */
#ifndef FASTHTTP_SCAN_H
#define FASTHTTP_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* Compiled anew for each form, whose functions and numbers it is given. */
#define FH_EACH static inline __attribute__((always_inline))

typedef unsigned char fh_byte;

/* RFC 9110 section 5.6.2: tchar. */
static const fh_byte fh_tchar[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1,
    ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1,
    ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,
    ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1,
    ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1,
    ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1,
    ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1,
    ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};

/* The first byte that is 0 in the table. */
static inline const fh_byte *
fh_skip(const fh_byte *p, const fh_byte *end, const fh_byte *table)
{
    while (p < end && table[*p])
        p++;
    return p;
}

static inline const fh_byte *
fh_token_end(const fh_byte *p, const fh_byte *end)
{
    return fh_skip(p, end, fh_tchar);
}

/* Which of the bytes at p match: FH_BITS bits of the answer for each. */
typedef uint64_t fh_match(const fh_byte *p, fh_byte wanted);

FH_EACH uint64_t
fh_equal_1(const fh_byte *p, fh_byte wanted)
{
    return *p == wanted;
}

/* Those outside of least..0x7e. */
FH_EACH uint64_t
fh_outside_1(const fh_byte *p, fh_byte least)
{
    return *p < least || *p > 0x7e;
}

#if defined(__x86_64__)
#define FH_WIDTH 16
#define FH_BITS 1

FH_EACH uint64_t
fh_equal(const fh_byte *p, fh_byte wanted)
{
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    return (unsigned)_mm_movemask_epi8(
        _mm_cmpeq_epi8(v, _mm_set1_epi8((char)wanted)));
}

/* Less by `least` they are above 0x7e - least, and with least + 1 added to
 * that, or as much as fits, they have the highest bit. */
FH_EACH uint64_t
fh_outside(const fh_byte *p, fh_byte least)
{
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    v = _mm_add_epi8(v, _mm_set1_epi8((char)-least));
    v = _mm_adds_epu8(v, _mm_set1_epi8((char)(least + 1)));
    return (unsigned)_mm_movemask_epi8(v);
}

__attribute__((target("avx2"))) static inline uint64_t
fh_outside_32(const fh_byte *p, fh_byte least)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)p);
    v = _mm256_add_epi8(v, _mm256_set1_epi8((char)-least));
    v = _mm256_adds_epu8(v, _mm256_set1_epi8((char)(least + 1)));
    return (unsigned)_mm256_movemask_epi8(v);
}

/* Those that are `lower`, or would be with the bits of `fold`. */
FH_EACH uint64_t
fh_same(const fh_byte *p, const fh_byte *fold, const fh_byte *lower)
{
    __m128i v = _mm_or_si128(_mm_loadu_si128((const __m128i *)p),
                             _mm_loadu_si128((const __m128i *)fold));
    return (unsigned)_mm_movemask_epi8(
        _mm_cmpeq_epi8(v, _mm_loadu_si128((const __m128i *)lower)));
}

#elif defined(__aarch64__) && defined(__ARM_NEON)
#define FH_WIDTH 16
#define FH_BITS 4

FH_EACH uint64_t
fh_mask(uint8x16_t v)
{
    return vget_lane_u64(
        vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(v), 4)), 0);
}

FH_EACH uint64_t
fh_equal(const fh_byte *p, fh_byte wanted)
{
    return fh_mask(vceqq_u8(vld1q_u8(p), vdupq_n_u8(wanted)));
}

FH_EACH uint64_t
fh_outside(const fh_byte *p, fh_byte least)
{
    uint8x16_t v = vsubq_u8(vld1q_u8(p), vdupq_n_u8(least));
    return fh_mask(vcgtq_u8(v, vdupq_n_u8((fh_byte)(0x7e - least))));
}

FH_EACH uint64_t
fh_same(const fh_byte *p, const fh_byte *fold, const fh_byte *lower)
{
    uint8x16_t v = vorrq_u8(vld1q_u8(p), vld1q_u8(fold));
    return fh_mask(vceqq_u8(v, vld1q_u8(lower)));
}

#else
#define FH_WIDTH 1
#define FH_BITS 1
#define fh_equal fh_equal_1
#define fh_outside fh_outside_1

FH_EACH uint64_t
fh_same(const fh_byte *p, const fh_byte *fold, const fh_byte *lower)
{
    return (*p | *fold) == *lower;
}
#endif

/* The first byte that matches, or `end`. What is left for less than a vector
 * is looked at together with bytes before it. */
FH_EACH const fh_byte *
fh_first(fh_match match, int width, unsigned bits, fh_match match_1,
         fh_byte wanted, const fh_byte *low, const fh_byte *p,
         const fh_byte *end)
{
    const fh_byte *last = end - low >= width ? end - width : NULL;
    uint64_t found;
    for (; p <= last; p += width) {
        found = match(p, wanted);
        if (found)
            return p + (unsigned)__builtin_ctzll(found) / bits;
    }
    if (last && p < end) {
        found = match(last, wanted) >> bits * (p - last);
        return found ? p + (unsigned)__builtin_ctzll(found) / bits : end;
    }
    while (p < end && !match_1(p, wanted))
        p++;
    return p;
}

static inline const fh_byte *
fh_find(const fh_byte *low, const fh_byte *p, const fh_byte *end,
        fh_byte wanted)
{
    return fh_first(fh_equal, FH_WIDTH, FH_BITS, fh_equal_1, wanted, low, p,
                    end);
}

/* The first byte outside 0x21..0x7e: the end of a request target. */
static inline const fh_byte *
fh_target_end(const fh_byte *low, const fh_byte *p, const fh_byte *end)
{
    return fh_first(fh_outside, FH_WIDTH, FH_BITS, fh_outside_1, 0x21, low,
                    p, end);
}

/* Past HTAB and bytes above 0x7f, which are rare but seldom alone; *high
 * becomes non-zero with one of the latter. */
static inline const fh_byte *
fh_pass(const fh_byte *p, const fh_byte *end, int *high)
{
    for (; p < end && (*p >= 0x80 || *p == '\t'); p++)
        *high |= *p & 0x80;
    return p;
}

/* The first byte of a field value, or its line, that may not stand there:
 * any control but HTAB (RFC 9110 section 5.5). *high becomes non-zero if a
 * byte above 0x7f was passed. */
FH_EACH const fh_byte *
fh_value_end_by(fh_match outside, int width, unsigned bits, const fh_byte *low,
                const fh_byte *p, const fh_byte *end, int *high)
{
    for (;;) {
        p = fh_first(outside, width, bits, fh_outside_1, 0x20, low, p, end);
        if (p == end || (*p < 0x80 && *p != '\t'))
            return p;
        p = fh_pass(p, end, high);
    }
}

static inline const fh_byte *
fh_value_end(const fh_byte *low, const fh_byte *p, const fh_byte *end,
             int *high)
{
    return fh_value_end_by(fh_outside, FH_WIDTH, FH_BITS, low, p, end, high);
}

/* A name in lower case, of letters and hyphens, at the end of its room. A set
 * bit 0x20 in `fold` stands at each letter, so that only its two cases match.
 */
#define FH_NAME_ROOM 32
#define FH_UNKNOWN (-1)

typedef struct {
    fh_byte lower[FH_NAME_ROOM];
    fh_byte fold[FH_NAME_ROOM];
    ptrdiff_t size;
    uint64_t places;        /* in the mask of its last FH_WIDTH bytes */
} fh_name;

/* Each name has a slot of its own; the first of all is none, of no bytes. */
typedef struct {
    fh_name names[128];
    fh_byte slots[256];
} fh_names;

/* Of a name of at least two bytes, by the first and the last two. */
static inline unsigned
fh_name_slot(const fh_byte *p, const fh_byte *end)
{
    uint16_t first, last;
    memcpy(&first, p, 2);
    memcpy(&last, end - 2, 2);
    return (((uint32_t)last << 16 | first | 0x20202020)
            + (uint32_t)(end - p)) * 0x51143efb >> 24;
}

/* Enter a name into a table that began as zeros; 0 if its slot is taken. */
static inline int
fh_add_name(fh_names *table, int known, const char *text)
{
    const fh_byte *p = (const fh_byte *)text, *end = p + strlen(text);
    fh_name *name = &table->names[known + 1];
    fh_byte *slot = &table->slots[fh_name_slot(p, end)];
    int left, i;
    name->size = end - p;
    for (i = FH_NAME_ROOM; end > p; ) {
        name->lower[--i] = *--end;
        name->fold[i] = *end == '-' ? 0 : 0x20;
    }
    left = name->size < FH_WIDTH ? FH_WIDTH - (int)name->size : 0;
    name->places = ~(uint64_t)0 >> (64 - FH_WIDTH * FH_BITS)
        & ~(uint64_t)0 << left * FH_BITS;
    if (*slot)
        return 0;
    *slot = (fh_byte)(known + 1);
    return 1;
}

/* The number of the name [p, end), in any case, or FH_UNKNOWN. */
static inline int
fh_known_name(const fh_names *table, const fh_byte *low, const fh_byte *p,
              const fh_byte *end)
{
    const fh_name *name;
    const fh_byte *fold, *lower;
    ptrdiff_t size = end - p;
    int slot;
    if (size < 2)
        return FH_UNKNOWN;
    slot = table->slots[fh_name_slot(p, end)];
    name = &table->names[slot];
    if (name->size != size)
        return FH_UNKNOWN;
    fold = name->fold + FH_NAME_ROOM;
    lower = name->lower + FH_NAME_ROOM;
    if (FH_WIDTH > 1 && end - low >= FH_WIDTH) {
        uint64_t same = fh_same(end - FH_WIDTH, fold - FH_WIDTH,
                                lower - FH_WIDTH);
        if (size > FH_WIDTH)
            same &= fh_same(p, fold - size, lower - size);
        return name->places & ~same ? FH_UNKNOWN : slot - 1;
    }
    for (; size; size--)
        if ((end[-size] | fold[-size]) != lower[-size])
            return FH_UNKNOWN;
    return slot - 1;
}

/* One header line; offsets from the head's first byte. */
typedef struct {
    uint32_t name;
    uint32_t name_size;
    uint32_t value;
    uint32_t value_size;
    int known;
    int high;               /* the line holds bytes above 0x7f */
} fh_field;

typedef struct {
    const fh_byte *line;    /* where the line that is read begins */
    const fh_byte *p;       /* what of it is read already */
    int high;
} fh_cursor;

/* Fields of whole lines without fault, none longer than `limit`; how many, at
 * most `room`. The cursor is then the next line's: at its end so far, at its
 * first byte that cannot belong to it, or at its limit. */
typedef int fh_lines(const fh_names *names, const fh_byte *base,
                     const fh_byte *end, ptrdiff_t limit, fh_cursor *cursor,
                     fh_field *fields, int room);

FH_EACH int
fh_lines_by(fh_match outside, int width, unsigned bits, const fh_names *names,
            const fh_byte *base, const fh_byte *end, ptrdiff_t limit,
            fh_cursor *cursor, fh_field *fields, int room)
{
    const fh_byte *line = cursor->line, *p = cursor->p;
    fh_field *field = fields, *stop = fields + room;
    int high = cursor->high;
    while (field < stop) {
        const fh_byte *colon, *value, *last;
        p = fh_first(outside, width, bits, fh_outside_1, 0x20, base, p, end);
        if (end - p > 1 && memcmp(p, "\r\n", 2) == 0) {
            if (p - line > limit)
                break;
            colon = fh_find(base, line, end, ':');
            if (colon > p)
                break;
            field->known = fh_known_name(names, base, line, colon);
            if (field->known == FH_UNKNOWN
                && (colon == line || fh_token_end(line, colon) < colon))
                break;
            /* No byte of a good line is below the space but HTAB. */
            for (last = p; last[-1] <= ' '; last--)
                ;
            for (value = colon + 1; *value <= ' ' && value < last; value++)
                ;
            field->name = (uint32_t)(line - base);
            field->name_size = (uint32_t)(colon - line);
            field->value = (uint32_t)(value - base);
            field->value_size = (uint32_t)(last - value);
            field->high = high;
            field++;
            line = p += 2;
            high = 0;
            /* Of the empty line. */
            if (p < end && *p == '\r')
                break;
        } else if (p < end && (*p >= 0x80 || *p == '\t')) {
            p = fh_pass(p, end, &high);
        } else {
            break;
        }
    }
    if (p - line > limit)
        p = line + limit;
    cursor->line = line;
    cursor->p = p;
    cursor->high = high;
    return (int)(field - fields);
}

static inline int
fh_lines_scalar(const fh_names *names, const fh_byte *base,
                const fh_byte *end, ptrdiff_t limit, fh_cursor *cursor,
                fh_field *fields, int room)
{
    return fh_lines_by(fh_outside_1, 1, 1, names, base, end, limit, cursor,
                       fields, room);
}

static inline int
fh_lines_vector(const fh_names *names, const fh_byte *base,
                const fh_byte *end, ptrdiff_t limit, fh_cursor *cursor,
                fh_field *fields, int room)
{
    if (end - base < FH_WIDTH)
        return fh_lines_scalar(names, base, end, limit, cursor, fields, room);
    return fh_lines_by(fh_outside, FH_WIDTH, FH_BITS, names, base, end,
                       limit, cursor, fields, room);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static inline int
fh_lines_avx2(const fh_names *names, const fh_byte *base,
              const fh_byte *end, ptrdiff_t limit, fh_cursor *cursor,
              fh_field *fields, int room)
{
    if (end - base < 32)
        return fh_lines_vector(names, base, end, limit, cursor, fields, room);
    return fh_lines_by(fh_outside_32, 32, 1, names, base, end, limit, cursor,
                       fields, room);
}
#endif

static inline uint64_t
fh_word(const fh_byte *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline uint64_t
fh_half_word(const fh_byte *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Of a value of less than 512 bytes: its size, the name that `known` is the
 * number of, and a hash of its first 16 and last 32 bytes; never 0. Each step
 * is a bijection of the state, so that no byte is lost on the way. */
static inline uint64_t
fh_tag(const fh_byte *p, ptrdiff_t size, int known)
{
    const uint64_t odd = 0x9e3779b97f4a7c15;
    const fh_byte *last = p + size;
    uint64_t kind = (uint64_t)size << 7 | (uint64_t)(known + 1);
    uint64_t a = kind, b = 0;
    if (size >= 16) {
        a = (a ^ fh_word(p)) * odd;
        b = (b ^ fh_word(p + 8)) * odd;
        if (size > 32) {
            a = (a ^ fh_word(last - 32)) * odd;
            b = (b ^ fh_word(last - 24)) * odd;
        }
        a = (a ^ fh_word(last - 16)) * odd;
        b = (b ^ fh_word(last - 8)) * odd;
    } else if (size >= 8) {
        a = (a ^ fh_word(p)) * odd;
        b = (b ^ fh_word(last - 8)) * odd;
    } else if (size >= 4) {
        a = (a ^ fh_half_word(p)) * odd;
        b = (b ^ fh_half_word(last - 4)) * odd;
    } else if (size > 0) {
        a = (a ^ p[0] ^ (uint64_t)p[size >> 1] << 8) * odd;
        b = (b ^ last[-1]) * odd;
    }
    a = (a ^ (b << 32 | b >> 32)) * odd;
    return a >> 16 << 16 | kind;
}

static inline int
fh_hex_value(fh_byte c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes at most `size` bytes to `to`, returns how many. */
static inline ptrdiff_t
fh_percent_decode(const fh_byte *p, ptrdiff_t size, char *to)
{
    const fh_byte *end = p + size;
    char *start = to;
    while (p < end) {
        if (*p == '%' && end - p > 2 && fh_hex_value(p[1]) >= 0
            && fh_hex_value(p[2]) >= 0) {
            *to++ = (char)(fh_hex_value(p[1]) * 16 + fh_hex_value(p[2]));
            p += 3;
        } else {
            *to++ = (char)*p++;
        }
    }
    return to - start;
}

/* The forms that this machine has, the best one first. */
typedef struct {
    const char *name;
    fh_lines *lines;
} fh_form;

static inline int
fh_forms(fh_form *forms)
{
    int count = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        forms[count++] = (fh_form){"avx2", fh_lines_avx2};
    forms[count++] = (fh_form){"sse2", fh_lines_vector};
#elif FH_WIDTH > 1
    forms[count++] = (fh_form){"neon", fh_lines_vector};
#endif
    forms[count++] = (fh_form){"scalar", fh_lines_scalar};
    return count;
}

/* Offset where forms of a scan first disagree on [low, end), or -1. */
static inline int
fh_scan_check(const fh_names *names, const fh_byte *low, const fh_byte *end)
{
    enum { ROOM = 40 };
    fh_form forms[3];
    int number = fh_forms(forms);
    for (const fh_byte *p = low; p <= end; p++) {
        fh_field fields[3][ROOM];
        fh_cursor cursors[3];
        int counts[3], high[2] = {0};
        /* With bytes before p that may be read as well, and without. */
        const fh_byte *from = (p - low) % 2 ? p : low;
        if (fh_value_end(from, p, end, &high[0])
                != fh_value_end_by(fh_outside_1, 1, 1, from, p, end, &high[1])
            || !high[0] != !high[1]
            || fh_target_end(from, p, end)
                != fh_first(fh_outside_1, 1, 1, fh_outside_1, 0x21, from, p,
                            end)
            || fh_find(from, p, end, ':')
                != fh_first(fh_equal_1, 1, 1, fh_equal_1, ':', from, p, end))
            return (int)(p - low);
        for (int i = 0; i < number; i++) {
            cursors[i] = (fh_cursor){p, p, 0};
            counts[i] = forms[i].lines(names, from, end, ROOM, &cursors[i],
                                       fields[i], ROOM);
            if (counts[i] != counts[0]
                || memcmp(fields[i], fields[0],
                          (size_t)counts[i] * sizeof(fh_field))
                || cursors[i].line != cursors[0].line
                || cursors[i].p != cursors[0].p
                || !cursors[i].high != !cursors[0].high)
                return (int)(p - low);
        }
        for (int i = 0; i < counts[0]; i++) {
            const fh_byte *name = from + fields[0][i].name;
            if (fields[0][i].known
                != fh_known_name(names, name, name,
                                 name + fields[0][i].name_size))
                return (int)(p - low);
        }
    }
    return -1;
}
#endif
