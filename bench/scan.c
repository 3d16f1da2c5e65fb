/* The scans of _scan.h alone, for test_micro.py. */
#include "../fasthttp/_scan.h"

enum { ROOM = 100 };

static fh_names names;
static fh_field fields[ROOM];

int add_name(int known, const char *text)
{
    return fh_add_name(&names, known, text);
}

/* How many fields all heads in a row have, by one of the forms that this
 * machine has; -1 for a fault. */
int scan(int form, const char *heads, size_t size)
{
    const fh_byte *base = (const fh_byte *)heads, *end = base + size;
    fh_form forms[3];
    int count = 0;
    fh_forms(forms);
    while (base < end) {
        const fh_byte *p = fh_token_end(base, end);
        p = fh_target_end(base, p + 1, end) + sizeof " HTTP/1.1\r\n" - 1;
        fh_cursor cursor = {p, p, 0};
        count += forms[form].lines(&names, base, end, end - p, &cursor,
                                   fields, ROOM);
        if (end - cursor.p < 2 || memcmp(cursor.p, "\r\n", 2))
            return -1;
        base = cursor.p + 2;
    }
    return count;
}
