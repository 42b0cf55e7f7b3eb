"""The hand generator: procedural pictures of hands in the Oxford layout, seeded.

generator   pictures, annotations and the folder around them; start here
model       bones and joints: what a hand can do
drawing     a posed hand as pixels
relief      the light on skin
background  what stands behind the hands
"""
